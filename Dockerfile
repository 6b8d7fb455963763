# The two commands in a container.
#
#     docker build -t curl_rl .                                          # for the CPU
#     docker build -t curl_rl --build-arg TORCH="torch>=2.8,<3" --build-arg TORCH_INDEX= .    # for CUDA; --gpus all
#     docker run -v "$PWD/runs:/curl_rl/runs" curl_rl                    # make train: cheetah-run with the preset cpu
#     docker run curl_rl make test
#
# For the CPU, PyTorch's index of CPU builds keeps the image small. pip prefers them wherever it finds them, so a build
# for CUDA must not see that index.
FROM python:3.12-slim-bookworm
ARG TORCH=torch==2.13.0
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN apt-get update -qq \
    && apt-get install -qq --no-install-recommends make git libegl1 libopengl0 libgl1-mesa-dri libosmesa6 \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /curl_rl
ENV PIP_NO_CACHE_DIR=1 PIP_EXTRA_INDEX_URL=${TORCH_INDEX}
COPY . .
RUN make setup TORCH="${TORCH}"
CMD ["make", "train"]
