FROM longshore-demo/base:1
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 python3-numpy python3-scipy python3-pandas python3-sympy \
 && rm -rf /var/lib/apt/lists/*
# One whiteout beside files that stay, and a file that is changed.
RUN rm /usr/share/longshore/seasons/winter \
 && echo "longer than it was" >> /usr/share/longshore/seasons/summer
# Names that archives must escape: not ASCII, 200 characters, blanks, a line end, a backslash.
RUN mkdir -p /srv/names && cd /srv/names \
 && touch -- "grüße-Ωμέγα-日本語-🚢" "$(printf 'n%.0s' $(seq 200))" "two  blanks" "back\\slash" "$(printf 'line\nend')" "-rf" \
 && mkdir -p "$(printf 'd%.0s' $(seq 120))/$(printf 'e%.0s' $(seq 120))" \
 && echo deep > "$(printf 'd%.0s' $(seq 120))/$(printf 'e%.0s' $(seq 120))/file"
LABEL org.opencontainers.image.title="a demo of Longshore"
ENV PYTHONUNBUFFERED=1
WORKDIR /srv
CMD ["python3", "-c", "import sys, numpy, scipy.linalg as l; print('python', sys.version.split()[0], 'numpy', numpy.__version__, 'det', round(l.det(numpy.array([[2., 1.], [1., 3.]]))))"]
