module github.com/sametick/sametick/pkg

go 1.26.0

require github.com/sametick/sametick/proto/gen/go v0.0.0

replace github.com/sametick/sametick/proto/gen/go => ../proto/gen/go
