package records

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"hash"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sametick/sametick/pkg/event"
)

// The formats of an export.
const (
	NDJSON = "ndjson"
	CSV    = "csv"
)

const (
	// exportChunk is about how many bytes leave at once.
	exportChunk = 64 << 10
	// MaxExportTime ends an export: it reads one snapshot, which Postgres must keep for so long.
	MaxExportTime = 30 * time.Minute
	endTimeout    = 5 * time.Second
)

// Exporter reads all records of a type and keeps the story of it.
type Exporter interface {
	// BeginExport draws an id for the export and fires pre_export, in a transaction of its own.
	BeginExport(ctx context.Context, call Call, typ event.Type) (id int64, err error)
	// Scan gives all records that match, by id, as they are at one moment. The record is each's until it returns.
	Scan(ctx context.Context, orgID int64, q Query, each func(*Record) error) error
	// EndExport fires an event of an export with what there is to tell of it, and an audit entry.
	EndExport(ctx context.Context, call Call, typ event.Type, id int64, action, outcome string, extra json.RawMessage) error
}

// ExportSummary tells what an export was.
type ExportSummary struct {
	Count int64 `json:"count"`
	// SHA256 is of all bytes, in hexadecimal.
	SHA256 string `json:"sha256"`
	Format string `json:"format"`
}

// Export sends all records of a type that q selects, in chunks to send, whose slice is reused. The pre_export
// event is committed before anything is read, the post_export event after the last byte was sent. When it
// fails in between, an export_failed event and an audit entry with outcome failed say so.
func (s *Service) Export(ctx context.Context, call Call, q Query, format string, send func([]byte) error) (ExportSummary, error) {
	f, err := s.typed(ctx, call.OrgID, q.Type, false)
	if err != nil {
		return ExportSummary{}, err
	}
	e, err := newExport(f, q, format, send)
	if err != nil {
		return ExportSummary{}, err
	}
	id, err := s.exporter.BeginExport(ctx, call, q.Type)
	if err != nil {
		return ExportSummary{}, err
	}
	s.changed()
	defer s.changed()
	limited, cancel := context.WithTimeout(ctx, MaxExportTime)
	defer cancel()
	if err = e.begin(); err == nil {
		if err = s.exporter.Scan(limited, call.OrgID, q, e.add); err == nil {
			err = e.flush()
		}
	}
	summary := e.summary()
	// The end is told also when the client, which has all it wants, is gone.
	ctx, cancelEnd := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancelEnd()
	if err != nil {
		extra, _ := json.Marshal(map[string]any{"format": e.format, "count": summary.Count}) // always encodes
		_ = s.exporter.EndExport(ctx, call, q.Type, id, "export_failed", "failed", extra)    // the error is told in any case
		return summary, err
	}
	extra, err := json.Marshal(summary)
	if err != nil {
		return summary, err
	}
	return summary, s.exporter.EndExport(ctx, call, q.Type, id, event.Post(event.Export), "applied", extra)
}

// export is one under way: it has in memory what is sent next.
type export struct {
	format string
	send   func([]byte) error
	buf    bytes.Buffer
	csv    *csv.Writer
	hash   hash.Hash
	count  int64
}

func newExport(f *faults, q Query, format string, send func([]byte) error) (*export, error) {
	e := &export{format: format, send: send, hash: sha256.New()}
	e.csv = csv.NewWriter(&e.buf)
	e.csv.UseCRLF = true
	if e.format == "" {
		e.format = NDJSON
	}
	if e.format != NDJSON && e.format != CSV {
		f.add("format", "NOT_IN_ENUM", "one of: %s, %s", NDJSON, CSV)
	}
	f.reference("workflow_id", q.WorkflowID)
	return e, f.result()
}

func (e *export) begin() error {
	if e.format != CSV {
		return nil
	}
	return e.csv.Write([]string{"id", "type", "name", "version", "workflow_id", "step_id", "created_at", "updated_at", "archived_at", "attributes"})
}

func (e *export) add(r *Record) error {
	e.count++
	if e.format == CSV {
		if err := e.csv.Write(row(r)); err != nil {
			return err
		}
		e.csv.Flush()
	} else {
		e.buf.Write(AppendJSON(e.buf.AvailableBuffer(), r))
		e.buf.WriteByte('\n')
	}
	if e.buf.Len() < exportChunk {
		return nil
	}
	return e.flush()
}

func (e *export) flush() error {
	e.csv.Flush()
	if e.buf.Len() == 0 {
		return nil
	}
	_, _ = e.hash.Write(e.buf.Bytes()) // never fails
	err := e.send(e.buf.Bytes())
	e.buf.Reset()
	return err
}

func (e *export) summary() ExportSummary {
	return ExportSummary{Count: e.count, SHA256: hex.EncodeToString(e.hash.Sum(nil)), Format: e.format}
}

// AppendJSON appends a record as the API shows it.
func AppendJSON(b []byte, r *Record) []byte {
	text := func(key, value string) {
		b = append(b, key...)
		b, _ = jsontext.AppendQuote(b, value) // Postgres' text is valid
	}
	number := func(key string, n *int64) {
		if b = append(b, key...); n == nil {
			b = append(b, "null"...)
		} else {
			b = strconv.AppendInt(b, *n, 10)
		}
	}
	at := func(key string, t *time.Time) {
		if b = append(b, key...); t == nil {
			b = append(b, "null"...)
		} else {
			b = append(t.UTC().AppendFormat(append(b, '"'), event.TimeLayout), '"')
		}
	}
	number(`{"id":`, &r.ID)
	text(`,"type":`, r.Type)
	text(`,"name":`, r.Name)
	b = append(append(b, `,"attributes":`...), r.Attributes...)
	number(`,"version":`, &r.Version)
	number(`,"workflow_id":`, r.WorkflowID)
	number(`,"step_id":`, r.StepID)
	at(`,"created_at":`, &r.CreatedAt)
	at(`,"updated_at":`, &r.UpdatedAt)
	at(`,"archived_at":`, r.ArchivedAt)
	return append(b, '}')
}

func row(r *Record) []string {
	number := func(n *int64) string {
		if n == nil {
			return ""
		}
		return itoa(*n)
	}
	at := func(t *time.Time) string {
		if t == nil {
			return ""
		}
		return t.UTC().Format(event.TimeLayout)
	}
	return []string{itoa(r.ID), r.Type, harmless(r.Name), itoa(r.Version), number(r.WorkflowID), number(r.StepID),
		at(&r.CreatedAt), at(&r.UpdatedAt), at(r.ArchivedAt), string(r.Attributes)}
}

// harmless keeps a spreadsheet from taking a name for a formula (OWASP, CSV injection): such a cell begins
// with an apostrophe. Other cells are numbers, times, or begin with a brace.
func harmless(s string) string {
	if s != "" && bytes.IndexByte([]byte("=+-@\t\r"), s[0]) >= 0 {
		return "'" + s
	}
	return s
}
