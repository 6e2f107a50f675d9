# The same image as `make image` will write without an engine: one static binary, no shell, no root.
FROM golang:1.27 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev COMMIT=unknown
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION} -X main.commit=${COMMIT}" -o /gatehouse ./cmd/gatehouse

FROM scratch
ARG VERSION=dev COMMIT=unknown
LABEL org.opencontainers.image.title=gatehouse org.opencontainers.image.version=${VERSION} \
      org.opencontainers.image.revision=${COMMIT} org.opencontainers.image.licenses=Apache-2.0
COPY --from=build /gatehouse /gatehouse
USER 65532:65532
EXPOSE 8080 8081
ENTRYPOINT ["/gatehouse"]
