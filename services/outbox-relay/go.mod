module github.com/sametick/sametick/services/outbox-relay

go 1.26.0

require (
	github.com/sametick/sametick/pkg v0.0.0
	github.com/stretchr/testify v1.12.1
	pgregory.net/rapid v1.3.0
)

require (
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/sys v0.49.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20261019180522-ce908d29299b // indirect
	google.golang.org/grpc v1.85.0 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)

replace (
	github.com/sametick/sametick/pkg => ../../pkg
	github.com/sametick/sametick/proto/gen/go => ../../proto/gen/go
)
