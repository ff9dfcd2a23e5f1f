# One entry point, `onebox`, for worker, register API, codec server and migrations.
#
#   docker build --target production .     for deployments, without the devstack (the last stage, so the default)
#   docker build --target dev .            with the devstack: AWS endpoint, boxes, `onebox dev`

FROM python:3.13-slim AS tools
WORKDIR /src
RUN python -m venv /build && python -m venv /onebox
COPY requirements requirements
RUN /build/bin/pip install --no-cache-dir --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md ./
COPY workflows workflows
COPY activities activities
COPY store store
COPY register_api register_api
COPY client client
COPY workers workers
COPY cli cli

FROM tools AS build
RUN /onebox/bin/pip install --no-cache-dir --require-hashes -r requirements/production.txt
# The wheel's package list names the devstack, so an empty directory must exist.
RUN mkdir devstack && /build/bin/python -m hatchling build -t wheel \
 && /onebox/bin/pip install --no-cache-dir --no-deps dist/*.whl

FROM tools AS build-dev
RUN /onebox/bin/pip install --no-cache-dir --require-hashes -r requirements/development.txt
COPY devstack devstack
RUN /build/bin/python -m hatchling build -t wheel \
 && /onebox/bin/pip install --no-cache-dir --no-deps dist/*.whl

FROM python:3.13-slim AS base
ENV PATH=/onebox/bin:$PATH PYTHONUNBUFFERED=1
USER 10001:10001
ENTRYPOINT ["onebox"]
CMD ["--help"]

FROM base AS dev
COPY --from=build-dev /onebox /onebox
# A new volume mounted here gets the owner of this directory.
USER root
RUN install --directory --owner=10001 --group=10001 --mode=0700 /state
USER 10001:10001

FROM base AS production
COPY --from=build /onebox /onebox
