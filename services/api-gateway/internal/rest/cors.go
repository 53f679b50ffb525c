package rest

import (
	"net/http"

	"github.com/rs/cors"
)

// WithCORS lets pages of other origins ("*": any) call the API; none may when there are no origins. Tokens
// travel in a header or the URL, never in cookies, so no credentials are allowed and "*" is safe.
func WithCORS(next http.Handler, origins []string) http.Handler {
	if len(origins) == 0 {
		return next
	}
	shared := cors.New(cors.Options{
		AllowedOrigins: origins,
		AllowedMethods: []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPatch, http.MethodDelete},
		AllowedHeaders: []string{"Authorization", "Content-Type", "Cache-Control", "Last-Event-ID", "X-Request-Id", "Traceparent",
			"Idempotency-Key", "If-Match"},
		ExposedHeaders: []string{"X-Request-Id", "Retry-After", "ETag", "Idempotency-Replayed", "Content-Disposition",
			"RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"},
		MaxAge: 7200,
	})
	return shared.Handler(withoutCORS{next})
}

// withoutCORS drops what sse-gateway says of origins on its way through: a browser refuses two.
type withoutCORS struct{ next http.Handler }

// ServeHTTP implements http.Handler.
func (h withoutCORS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Header.Del("Origin") // sse-gateway answers origins only when it is told one
	h.next.ServeHTTP(w, r)
}
