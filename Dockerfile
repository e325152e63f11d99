# docker build --build-arg TORCH_INDEX=INDEX -t neuronwise .
# docker run --rm -v "$PWD:/work" neuronwise find photo.jpg
# INDEX: where pip finds a build of torch without CUDA; left out, pip takes the one that it knows, which is larger.
FROM python:3.11-slim
ARG TORCH_INDEX=
WORKDIR /neuronwise
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir -c constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch \
 && pip install --no-cache-dir -c constraints.txt '.[all]'
WORKDIR /work
ENTRYPOINT ["neuronwise"]
