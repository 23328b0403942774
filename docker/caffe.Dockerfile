# Real Caffe 1.0, CPU only: the referee of the engine in pipeline/caffe.
#
#   docker build -f docker/caffe.Dockerfile -t caffe docker
#   docker run --rm -it -v "$PWD:/work" -w /work caffe caffe train -solver results/run/solver.prototxt
#
# Debian 11 is the last release that packages Caffe. Without libopenblas0-pthread it would use the reference BLAS,
# which is seven times slower.
FROM debian:bullseye-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends caffe python3-caffe python3-lmdb libopenblas0-pthread \
 && rm -rf /var/lib/apt/lists/*
ENV OPENBLAS_NUM_THREADS=2
CMD ["caffe", "--version"]
