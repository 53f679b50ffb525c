package sse

import (
	"encoding/json"
	"log/slog"
	"math"
	"net/http"
	"strconv"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/telemetry"
)

// problem is an error as RFC 9457 shows it, of the same shape as everywhere in the REST API.
type problem struct {
	Type      string            `json:"type"`
	Title     string            `json:"title"`
	Status    int               `json:"status"`
	Detail    string            `json:"detail"`
	Reason    string            `json:"reason"`
	Errors    []fieldProblem    `json:"errors"`
	Metadata  map[string]string `json:"metadata,omitempty"`
	RequestID string            `json:"request_id"`
}

type fieldProblem struct {
	Field       string `json:"field"`
	Reason      string `json:"reason"`
	Description string `json:"description"`
}

func (h *Handler) problem(w http.ResponseWriter, r *http.Request, e *errs.Error) {
	h.problemStatus(w, r, e, errs.HTTPStatus(e.Kind))
}

func (h *Handler) problemStatus(w http.ResponseWriter, r *http.Request, e *errs.Error, status int) {
	header := w.Header()
	header.Set("Content-Type", "application/problem+json")
	header.Set("Cache-Control", "no-store")
	if e.RetryAfter > 0 {
		header.Set("Retry-After", strconv.Itoa(int(math.Ceil(e.RetryAfter.Seconds()))))
	}
	if status == http.StatusUnauthorized { // RFC 6750, section 3
		challenge := `Bearer realm="sametick"`
		if e.Reason != "TOKEN_MISSING" {
			challenge += `, error="invalid_token"`
		}
		header.Set("WWW-Authenticate", challenge)
	}
	out := problem{
		Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: e.Message, Reason: e.Reason,
		Errors: []fieldProblem{}, Metadata: e.Meta, RequestID: telemetry.RequestID(r.Context()),
	}
	for _, f := range e.Fields {
		out.Errors = append(out.Errors, fieldProblem(f))
	}
	level := slog.LevelInfo
	if !e.Kind.ClientFault() {
		level = slog.LevelWarn
	}
	h.Log.LogAttrs(r.Context(), level, "request refused", slog.String("method", r.Method), slog.String("path", r.URL.Path),
		slog.Int("status", status), slog.String("error", e.Error()))
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(out) // a client that is gone needs no answer
}
