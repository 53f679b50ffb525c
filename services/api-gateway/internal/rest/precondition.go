package rest

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/services/api-gateway/internal/grpcapi"
)

// entityTag shows the version of one entity as its ETag (RFC 9110, 8.8.3).
func entityTag(_ context.Context, w http.ResponseWriter, m proto.Message) error {
	if r, ok := m.(interface{ GetVersion() int64 }); ok { // a record or a type
		w.Header().Set("ETag", `"`+strconv.FormatInt(r.GetVersion(), 10)+`"`)
	}
	return nil
}

// ifMatch gives the version that a change was made from (RFC 9110, 13.1.1), as text; empty for any.
// checkIfMatch has seen the header.
func ifMatch(r *http.Request) string {
	return strings.Trim(strings.TrimPrefix(r.Header.Get("If-Match"), "*"), `"`)
}

// checkKey refuses an Idempotency-Key that would be lost on its way: gRPC's metadata is ASCII.
func checkKey(r *http.Request) *errs.Error {
	values := r.Header.Values("Idempotency-Key")
	if len(values) == 0 || len(values) == 1 && values[0] != "" && grpcapi.Printable(values[0]) == values[0] {
		return nil
	}
	return errs.New(errs.Invalid, "INVALID_REQUEST", "the request has invalid fields").
		WithField("Idempotency-Key", "INVALID_KEY", "once, 1 to 255 printable ASCII characters")
}

func checkIfMatch(r *http.Request) *errs.Error {
	values := r.Header.Values("If-Match")
	if len(values) == 0 || len(values) == 1 && values[0] == "*" {
		return nil
	}
	if len(values) == 1 && len(values[0]) > 2 && values[0] == `"`+ifMatch(r)+`"` {
		if version, err := strconv.ParseInt(ifMatch(r), 10, 64); err == nil && version > 0 {
			return nil
		}
	}
	return errs.New(errs.Invalid, "INVALID_REQUEST", "the request has invalid fields").
		WithField("If-Match", "INVALID_ETAG", `the record's ETag, such as "3" with its quotes, or *`)
}
