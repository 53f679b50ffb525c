package rest

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/sametick/sametick/pkg/errs"
	auditv1 "github.com/sametick/sametick/proto/gen/go/sametick/audit/v1"
)

const auditExportPath = "/api/audit/export"

// auditExport takes over the route of the audit log's export: one JSON object a line, as it comes. grpc-gateway would
// wrap each in another, and answer an error that comes before the first with a line of its own making.
func (g *gateway) auditExport(mux *runtime.ServeMux) error {
	client := auditv1.NewAuditServiceClient(g.options.Conn)
	if err := mux.HandlePath(http.MethodHead, auditExportPath, func(w http.ResponseWriter, r *http.Request, _ map[string]string) {
		g.auditExportHead(w, r, mux, client)
	}); err != nil {
		return err
	}
	return mux.HandlePath(http.MethodGet, auditExportPath, func(w http.ResponseWriter, r *http.Request, _ map[string]string) {
		req := &auditv1.ExportEntriesRequest{}
		ctx, err := g.annotated(mux, r, auditv1.AuditService_ExportEntries_FullMethodName, req)
		if err != nil {
			g.problems.write(w, r, errs.From(err))
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel() // ends the call when the client has gone
		stream, err := client.ExportEntries(ctx, req)
		if err != nil {
			g.problems.write(w, r, errs.From(err))
			return
		}
		ndjson(g, w, r, stream)
	})
}

// auditExportHead says whether an export would begin, by a list of the same entries: an export leaves an entry
// of its own, and HEAD is safe (RFC 9110, 9.3.2).
func (g *gateway) auditExportHead(w http.ResponseWriter, r *http.Request, mux *runtime.ServeMux, client auditv1.AuditServiceClient) {
	req := &auditv1.ListEntriesRequest{}
	ctx, err := g.annotated(mux, r, auditv1.AuditService_ListEntries_FullMethodName, req)
	var md metadata.MD
	if err == nil {
		req.Limit = proto.Int32(1)
		_, err = client.ListEntries(ctx, req, grpc.Header(&md))
	}
	setRateLimits(w, md)
	if err != nil {
		g.problems.write(w, r, errs.From(err))
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
}

// annotated reads the query into req and gives the context with what the gRPC side reads.
func (g *gateway) annotated(mux *runtime.ServeMux, r *http.Request, method string, req proto.Message) (context.Context, error) {
	ctx, err := runtime.AnnotateContext(r.Context(), mux, r, method)
	if err != nil {
		return nil, err
	}
	return ctx, runtime.PopulateQueryParameters(req, r.URL.Query(), utilities.NewDoubleArray(nil))
}

// lineBuffer is how much is collected before it is sent.
const lineBuffer = 32 << 10

// ndjson writes a stream, one message a line. The time for an answer counts for each part of it.
func ndjson[T any](g *gateway, w http.ResponseWriter, r *http.Request, stream grpc.ServerStreamingClient[T]) {
	control := http.NewResponseController(w)
	lines, begun := make([]byte, 0, lineBuffer), false
	send := func() bool {
		if !begun {
			rateLimitsOf(w, stream)
			w.Header().Set("Content-Type", "application/x-ndjson")
			begun = true
		}
		_ = control.SetWriteDeadline(time.Now().Add(answerTimeout)) // a recorder in a test has none
		_, err := w.Write(lines)
		lines = lines[:0]
		return err == nil
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			send()
			return
		}
		var text []byte
		if err == nil {
			text, err = codec{}.Marshal(m)
		}
		if err != nil {
			if begun { // a client must not take what it has for the whole
				g.options.Log.WarnContext(r.Context(), "export broken off", "error", err)
				panic(http.ErrAbortHandler)
			}
			rateLimitsOf(w, stream)
			g.problems.write(w, r, errs.From(err))
			return
		}
		if lines = append(append(lines, text...), '\n'); len(lines) >= lineBuffer && !send() {
			return
		}
	}
}
