FROM longshore-demo/base:1
RUN apt-get update \
 && apt-get install -y --no-install-recommends clang lld llvm libc6-dev libstdc++-14-dev \
 && rm -rf /var/lib/apt/lists/*
RUN apt-get update \
 && apt-get install -y --no-install-recommends libclang-dev \
 && rm -rf /var/lib/apt/lists/*
# A sparse file, a device and a named pipe: layers hold more than files.
RUN mkdir /srv/special && cd /srv/special \
 && truncate -s 8M sparse && printf end >> sparse && mkfifo pipe && (mknod null c 1 3 || true)
RUN printf '%s\n' '#include <numeric>' '#include <vector>' '#include <iostream>' \
    'int main() { std::vector<long> v(1000); std::iota(v.begin(), v.end(), 1L);' \
    'std::cout << "clang " __clang_version__ " compiled a sum of " << std::accumulate(v.begin(), v.end(), 0L) << std::endl; }' \
    > /srv/sum.cc
STOPSIGNAL SIGINT
CMD ["sh", "-c", "clang++ -fuse-ld=lld -O1 /srv/sum.cc -o /tmp/sum && /tmp/sum"]
