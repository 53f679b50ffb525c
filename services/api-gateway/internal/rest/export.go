package rest

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/sametick/sametick/pkg/errs"
	recordsv1 "github.com/sametick/sametick/proto/gen/go/sametick/records/v1"
)

// chunkTimeout is how long a client may take for one chunk of an export: Postgres keeps a snapshot meanwhile.
const chunkTimeout = 30 * time.Second

// The trailers of an export (RFC 9110, 6.5), which say that it is complete.
const (
	countTrailer  = "Sametick-Count"
	sha256Trailer = "Sametick-Sha256"
)

// exports serves POST /api/records/{type}:export, the bytes as they come: grpc-gateway would put each
// message of the stream into a JSON object of its own.
type exports struct {
	*gateway
	client recordsv1.RecordServiceClient
}

// exportOf gives the type of a path of an export.
func exportOf(path string) (typ string, ok bool) {
	rest, ok := strings.CutPrefix(path, "/api/records/")
	if !ok {
		return "", false
	}
	typ, ok = strings.CutSuffix(rest, ":export")
	return typ, ok && !strings.Contains(typ, "/")
}

func (e *exports) serve(w http.ResponseWriter, r *http.Request, typ string) {
	if r.Method != http.MethodPost {
		e.problems.method(w, r, http.MethodPost)
		return
	}
	req := &recordsv1.ExportRecordsRequest{}
	if err := e.read(w, r, req, typ); err != nil {
		e.problems.write(w, r, errs.From(err))
		return
	}
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(r.Context(),
		metadata.Join(e.metadata(r.Context(), r), metadata.Pairs("authorization", r.Header.Get("Authorization")))))
	defer cancel()
	stream, err := e.client.ExportRecords(ctx, req)
	var first *recordsv1.ExportRecordsResponse
	if err == nil {
		first, err = stream.Recv()
		rateLimitsOf(w, stream)
	}
	if err != nil {
		e.problems.write(w, r, errs.From(err))
		return
	}
	e.copy(w, req, first, stream.Recv)
}

func (e *exports) read(w http.ResponseWriter, r *http.Request, req *recordsv1.ExportRecordsRequest, typ string) error {
	if r.URL.RawQuery != "" {
		return fieldFault("query", "UNKNOWN_PARAMETER", "no query parameters here")
	}
	if r.Header.Get("Idempotency-Key") != "" {
		return fieldFault("Idempotency-Key", "NOT_SUPPORTED", "no key here: an export changes nothing and may be asked for again")
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout)) // a recorder in a test has none
	b := &body{ReadCloser: http.MaxBytesReader(w, r.Body, maxBody), limit: maxBody}
	text, fault := b.read()
	if fault != nil {
		return fault
	}
	if len(text) > 0 { // all of it has defaults
		if err := decodeBody(text, req, map[string]string{"type": typ}); err != nil {
			return err
		}
	}
	req.Type = typ
	return nil
}

// copy sends the chunks. An export that fails in the middle ends with a connection cut off: it must not look
// complete.
func (e *exports) copy(w http.ResponseWriter, req *recordsv1.ExportRecordsRequest, m *recordsv1.ExportRecordsResponse, next func() (*recordsv1.ExportRecordsResponse, error)) {
	control := http.NewResponseController(w)
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Trailer", countTrailer+", "+sha256Trailer)
	extension := "ndjson"
	if h.Set("Content-Type", "application/x-ndjson"); req.GetFormat() == "csv" {
		extension = "csv"
		h.Set("Content-Type", "text/csv; charset=utf-8")
	}
	h.Set("Content-Disposition", `attachment; filename="`+req.GetType()+"."+extension+`"`)
	for {
		_ = control.SetWriteDeadline(time.Now().Add(chunkTimeout))
		if s := m.GetSummary(); s != nil {
			h.Set(countTrailer, strconv.FormatInt(s.GetCount(), 10))
			h.Set(sha256Trailer, s.GetSha256())
			return
		}
		if _, err := w.Write(m.GetData()); err != nil {
			panic(http.ErrAbortHandler)
		}
		_ = control.Flush()
		var err error
		if m, err = next(); err != nil {
			if !errors.Is(err, io.EOF) {
				e.options.Log.Warn("an export ended early", "error", err)
			}
			panic(http.ErrAbortHandler)
		}
	}
}
