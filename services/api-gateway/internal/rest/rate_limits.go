package rest

import (
	"net/http"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/sametick/sametick/services/api-gateway/internal/grpcapi"
)

// rateLimits are the header fields that say what the caller has left, see grpcapi.LimitKey.
var rateLimits = map[string]string{
	grpcapi.LimitKey: "RateLimit-Limit", grpcapi.RemainingKey: "RateLimit-Remaining", grpcapi.ResetKey: "RateLimit-Reset",
}

func setRateLimits(w http.ResponseWriter, md metadata.MD) {
	for key, name := range rateLimits {
		if values := md.Get(key); len(values) > 0 {
			w.Header().Set(name, values[0])
		}
	}
}

// rateLimitsOf is for streams that have had a first answer: only then Header does not wait.
func rateLimitsOf(w http.ResponseWriter, stream grpc.ClientStream) {
	if md, err := stream.Header(); err == nil {
		setRateLimits(w, md)
	}
}
