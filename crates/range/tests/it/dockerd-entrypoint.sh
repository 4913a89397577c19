#!/bin/sh
# Does what the entry point of `docker:dind` does: certificates where DOCKER_TLS_CERTDIR is set, a TCP
# address beside the socket, and docker-init above the engine.
set -eu

certificates() { # folder
    mkdir -p "$1/ca" "$1/server"
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj '/CN=ca' -keyout "$1/ca/key.pem" -out "$1/ca/cert.pem"
    openssl req -new -newkey rsa:2048 -nodes -subj '/CN=server' -keyout "$1/server/key.pem" -out "$1/server/csr.pem"
    openssl x509 -req -days 2 -in "$1/server/csr.pem" -CA "$1/ca/cert.pem" -CAkey "$1/ca/key.pem" -CAcreateserial -out "$1/server/cert.pem"
}

if [ "$#" -eq 0 ] || [ "${1#-}" != "$1" ]; then
    certificates "$DOCKER_TLS_CERTDIR"
    set -- dockerd --host=unix:///var/run/docker.sock --host=tcp://127.0.0.1:2376 --tlsverify \
        --tlscacert "$DOCKER_TLS_CERTDIR/ca/cert.pem" --tlscert "$DOCKER_TLS_CERTDIR/server/cert.pem" \
        --tlskey "$DOCKER_TLS_CERTDIR/server/key.pem" --iptables=false --bridge=none "$@"
fi
if [ "$1" = dockerd ]; then
    rm -f /var/run/docker.pid /var/run/docker/containerd/containerd.pid
    set -- docker-init -- "$@"
fi
exec "$@"
