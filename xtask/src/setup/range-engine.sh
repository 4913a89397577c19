#!/bin/sh
# Starts the Docker engine of a range, and becomes it.
#
# The image store is set in /etc/longshore/daemon.json, explicitly: defaults differ between releases.
# Needs a volume at /var/lib/docker (overlay2 does not work on an overlay) and a writable /sys/fs/cgroup.
set -eu

# A kill from outside leaves pid files behind, and an engine refuses to start while the number in one
# belongs to any process. What is still alive keeps its file.
clear_stale() { # program, pid file
    [ -f "$2" ] || return 0
    pid=$(cat "$2")
    [ "$(cat "/proc/$pid/comm" 2>/dev/null || true)" = "$1" ] || rm -f "$2"
}
clear_stale dockerd /var/run/docker.pid
clear_stale containerd /var/run/docker/containerd/containerd.pid

# On cgroup v2, controllers can only be handed down from a group that holds no process. Only where the
# range has a hierarchy of its own: the host's is not ours to rearrange.
if [ -f /sys/fs/cgroup/cgroup.controllers ] && [ "$(cat /proc/self/cgroup)" = "0::/" ] && [ ! -d /sys/fs/cgroup/system.slice ]; then
    mkdir -p /sys/fs/cgroup/init
    xargs -rn1 < /sys/fs/cgroup/cgroup.procs > /sys/fs/cgroup/init/cgroup.procs || true
    sed -e 's/ / +/g' -e 's/^/+/' < /sys/fs/cgroup/cgroup.controllers > /sys/fs/cgroup/cgroup.subtree_control || true
fi

# Which firewall interface works is the kernel's choice. Without one, containers of the range have no
# network of their own, and everything else works.
firewall=none
for candidate in iptables iptables-legacy iptables-nft; do
    if "$candidate" -w -t nat -S > /dev/null 2>&1; then
        firewall=$candidate
        break
    fi
done
case $firewall in
iptables) ;;
none) set -- --iptables=false --bridge=none "$@" ;;
*)
    mkdir -p /run/range-engine
    ln -sf "$(command -v "$firewall")" /run/range-engine/iptables
    PATH=/run/range-engine:$PATH
    ;;
esac

exec dockerd --host unix:///var/run/docker.sock --data-root /var/lib/docker --config-file /etc/longshore/daemon.json "$@"
