FROM longshore-demo/base:1
RUN apt-get update \
 && apt-get install -y --no-install-recommends nodejs node-typescript \
 && rm -rf /var/lib/apt/lists/*
# Thousands of small files in one layer.
RUN node -e "const fs = require('fs'); for (let d = 0; d < 100; d++) { fs.mkdirSync('/srv/many/' + d, { recursive: true }); for (let f = 0; f < 100; f++) fs.writeFileSync('/srv/many/' + d + '/' + f + '.js', 'module.exports = ' + (d * 100 + f) + ';') }"
# Links: hard ones within a layer, soft ones that are absolute, relative, dangling and in a loop.
RUN mkdir /srv/links && cd /srv/links \
 && echo "one file of three names" > first && ln first second && mkdir deeper && ln first deeper/third \
 && ln -s /srv/links/first absolute && ln -s ../many relative && ln -s /nowhere dangling && ln -s loop loop
# A folder becomes a file, a file becomes a folder, and a layer removes what the one below it brought.
RUN rm -rf /usr/share/longshore/seasons && echo "none" > /usr/share/longshore/seasons \
 && rm /usr/share/longshore/motto && mkdir /usr/share/longshore/motto && touch /usr/share/longshore/motto/empty
RUN rm -rf /srv/many/7 && rm /srv/many/8/8.js
CMD ["node", "-e", "const n = require('fs').readdirSync('/srv/many').length; console.log('node', process.version, 'finds', n, 'folders, last file says', require('/srv/many/99/99.js'))"]
