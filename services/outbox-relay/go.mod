module github.com/sametick/sametick/services/outbox-relay

go 1.26.0

require (
	github.com/sametick/sametick/pkg v0.0.0
	github.com/sametick/sametick/proto/gen/go v0.0.0
)

replace (
	github.com/sametick/sametick/pkg => ../../pkg
	github.com/sametick/sametick/proto/gen/go => ../../proto/gen/go
)
