# The production image: one entry point, `onebox`, for worker, register API, codec server and migrations. No devstack.
FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv /onebox
COPY requirements/production.txt requirements/production.txt
RUN /onebox/bin/pip install --no-cache-dir --require-hashes -r requirements/production.txt
COPY pyproject.toml README.md ./
COPY workflows workflows
COPY activities activities
COPY store store
COPY register_api register_api
COPY workers workers
RUN mkdir devstack && pip install --no-cache-dir hatchling \
 && python -m hatchling build -t wheel \
 && /onebox/bin/pip install --no-cache-dir --no-deps dist/*.whl

FROM python:3.13-slim
COPY --from=build /onebox /onebox
ENV PATH=/onebox/bin:$PATH PYTHONUNBUFFERED=1
USER 10001:10001
ENTRYPOINT ["onebox"]
CMD ["--help"]
