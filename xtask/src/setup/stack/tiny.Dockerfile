FROM longshore-demo/base:1 AS build
RUN apt-get update && apt-get install -y --no-install-recommends busybox-static && rm -rf /var/lib/apt/lists/*

FROM scratch
COPY --from=build /bin/busybox /bin/busybox
ENTRYPOINT ["/bin/busybox"]
CMD ["echo", "tiny: one program in one layer"]
