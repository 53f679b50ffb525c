module github.com/sametick/sametick/proto/gen/go

go 1.26.0
