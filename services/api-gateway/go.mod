module github.com/sametick/sametick/services/api-gateway

go 1.26.0

require (
	github.com/sametick/sametick/pkg v0.0.0
	github.com/sametick/sametick/proto/gen/go v0.0.0
)

require (
	github.com/go-json-experiment/json v1.27.2 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/sync v0.24.0 // indirect
)

replace (
	github.com/sametick/sametick/pkg => ../../pkg
	github.com/sametick/sametick/proto/gen/go => ../../proto/gen/go
)
