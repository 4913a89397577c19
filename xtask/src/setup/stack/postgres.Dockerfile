FROM longshore-demo/base:1
RUN apt-get update \
 && apt-get install -y --no-install-recommends postgresql postgresql-contrib \
 && rm -rf /var/lib/apt/lists/*
# Whiteouts: hundreds of files of the two layers below, and one folder with all in it.
RUN rm -rf /usr/share/doc/postgresql* /usr/share/doc/perl* /usr/share/postgresql/*/man \
 && find /usr/share/doc -name 'changelog*' -delete
# An opaque folder: the base's is replaced as a whole, under the same name.
RUN rm -rf /usr/share/longshore/seasons \
 && mkdir /usr/share/longshore/seasons \
 && echo "the dry and the wet" > /usr/share/longshore/seasons/two
# Two steps without a change: in the history, but no layers of their own.
RUN true
RUN true
# A file capability, a setuid and a setgid file, a sticky folder, another owner.
RUN apt-get update && apt-get install -y --no-install-recommends libcap2-bin \
 && rm -rf /var/lib/apt/lists/* \
 && cp /usr/bin/sleep /usr/local/bin/nap \
 && setcap cap_net_bind_service,cap_sys_nice+ep /usr/local/bin/nap \
 && cp /usr/bin/id /usr/local/bin/id-as-postgres \
 && chown postgres:postgres /usr/local/bin/id-as-postgres \
 && chmod 6755 /usr/local/bin/id-as-postgres \
 && install -d -m 1777 -o postgres -g postgres /srv/dropbox
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/17/bin
ENV PGDATA=/var/lib/postgresql/demo
EXPOSE 5432
USER postgres
CMD ["sh", "-c", "initdb --no-sync > /tmp/initdb.log 2>&1 && echo \"select 'postgres ' || current_setting('server_version') || ' adds up to ' || sum(n) from generate_series(1, 1000) n\" | postgres --single -E postgres 2>/dev/null | grep -o 'postgres .* 500500'"]
