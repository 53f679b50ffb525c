package tenancy_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sametick/sametick/pkg/errs"
)

// outcome is what a call came to, in one form for both doors.
type outcome struct {
	// data are the answers, one but for streams, as JSON with its numbers as they are written; nil after an error.
	data  []any
	fault *fault
}

// fault is an error as a client can branch on it.
type fault struct {
	Status          int
	Reason, Message string
	Fields          []errs.Field
	Meta            map[string]string
	// Retry is in whole seconds, as HTTP has it.
	Retry int
}

// ofGRPC makes the JSON of messages by their descriptors, as README and DESIGN describe it, and on purpose not by the
// code that REST uses.
func ofGRPC(s said) (o outcome, err error) {
	if s.err != nil {
		e := errs.From(s.err)
		f := &fault{Status: errs.HTTPStatus(e.Kind), Reason: e.Reason, Message: e.Message, Fields: e.Fields, Meta: e.Meta,
			Retry: int(math.Ceil(e.RetryAfter.Seconds()))}
		return outcome{fault: f}, nil
	}
	if !s.ok {
		return o, fmt.Errorf("%s: %s", s.code, s.text)
	}
	var bytes []byte
	chunked := false
	for _, m := range s.messages {
		r := m.ProtoReflect()
		if data := r.Descriptor().Fields().ByName("data"); data != nil && data.Kind() == protoreflect.BytesKind { // an export
			chunked = true
			bytes = append(bytes, r.Get(data).Bytes()...)
			if summary := r.Descriptor().Fields().ByName("summary"); r.Has(summary) {
				o.data = append(o.data, string(bytes), wireJSON(r.Get(summary).Message()))
			}
			continue
		}
		o.data = append(o.data, wireJSON(r))
	}
	if chunked && len(o.data) != 2 {
		return o, fmt.Errorf("an export without its summary")
	}
	return o, nil
}

func ofREST(s said) (o outcome, err error) {
	if !s.ok {
		var p struct {
			Status                 int
			Reason, Detail         string
			Errors                 []errs.Field
			Metadata               map[string]string
			Type, Title, RequestID any
		}
		if err := json.Unmarshal([]byte(s.text), &p); err != nil {
			return o, fmt.Errorf("%s: %w: %s", s.code, err, s.text)
		}
		f := &fault{Status: p.Status, Reason: p.Reason, Message: p.Detail, Fields: p.Errors, Meta: p.Metadata}
		if after := s.answer.Header.Get("Retry-After"); after != "" {
			if _, err := fmt.Sscan(after, &f.Retry); err != nil {
				return o, err
			}
		}
		if fmt.Sprint(p.Status) != s.code {
			return o, fmt.Errorf("status %s, and %d in the body", s.code, p.Status)
		}
		return outcome{fault: f}, nil
	}
	if count := s.answer.Trailer.Get("Sametick-Count"); count != "" {
		return outcome{data: []any{s.text, map[string]any{"count": json.Number(count), "sha256": s.answer.Trailer.Get("Sametick-Sha256")}}}, nil
	}
	d := json.NewDecoder(strings.NewReader(s.text))
	d.UseNumber()
	for {
		var v any
		err := d.Decode(&v)
		if err == io.EOF {
			return o, nil
		}
		if err != nil {
			return o, fmt.Errorf("%w: %s", err, s.text)
		}
		o.data = append(o.data, v)
	}
}

// wireJSON gives a message in this suite's JSON.
func wireJSON(m protoreflect.Message) any {
	fields := m.Descriptor().Fields()
	switch m.Descriptor().FullName() {
	case jsonMessage:
		d := json.NewDecoder(bytes.NewReader([]byte(m.Get(fields.ByName("text")).String())))
		d.UseNumber()
		var v any
		if err := d.Decode(&v); err != nil {
			return err.Error()
		}
		return v
	case timeMessage:
		stamp := &timestamppb.Timestamp{Seconds: m.Get(fields.ByName("seconds")).Int(), Nanos: int32(m.Get(fields.ByName("nanos")).Int())}
		return stamp.AsTime().Format("2006-01-02T15:04:05.000Z")
	}
	out := map[string]any{}
	for i := range fields.Len() {
		fd := fields.Get(i)
		one := func(v protoreflect.Value) any {
			switch fd.Kind() {
			case protoreflect.MessageKind:
				return wireJSON(v.Message())
			case protoreflect.Int32Kind, protoreflect.Int64Kind:
				return json.Number(fmt.Sprint(v.Int()))
			default:
				return v.Interface()
			}
		}
		switch {
		case fd.IsList():
			list := []any{}
			for j := range m.Get(fd).List().Len() {
				list = append(list, one(m.Get(fd).List().Get(j)))
			}
			out[string(fd.Name())] = list
		case fd.HasPresence() && !m.Has(fd):
			out[string(fd.Name())] = nil
		default:
			out[string(fd.Name())] = one(m.Get(fd))
		}
	}
	return out
}

// differs says where two outcomes are not the same; empty when they are.
func differs(a, b outcome) string {
	switch {
	case (a.fault == nil) != (b.fault == nil):
		return fmt.Sprintf("one fails: %s, and %s", show(a), show(b))
	case a.fault != nil:
		x, y := *a.fault, *b.fault
		for _, f := range []*fault{&x, &y} { // none and empty are the same on the wire
			f.Fields = slices.Clip(append([]errs.Field{}, f.Fields...))
			if f.Meta == nil {
				f.Meta = map[string]string{}
			}
		}
		if text(x) != text(y) {
			return fmt.Sprintf("%s, and %s", text(x), text(y))
		}
		return ""
	case len(a.data) != len(b.data):
		return fmt.Sprintf("%d answers, and %d", len(a.data), len(b.data))
	}
	for i := range a.data {
		if x, y := text(a.data[i]), text(b.data[i]); x != y { // encoding/json sorts keys
			return fmt.Sprintf("%s, and %s", x, y)
		}
	}
	return ""
}

func show(o outcome) string {
	if o.fault != nil {
		return text(o.fault)
	}
	return text(o.data)
}

var (
	moment  = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`)
	digits  = regexp.MustCompile(`\d+`)
	secrets = []string{"token", "secret", "access_token", "refresh_token", "prefix"}
)

// alike replaces what two runs of the same work never have alike: ids, times, secrets, numbers in drawn names.
func alike(key string, v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, inner := range v {
			out[k] = alike(k, inner)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, inner := range v {
			out[i] = alike(key, inner)
		}
		return out
	case json.Number:
		if key == "id" || strings.HasSuffix(key, "_id") || strings.HasSuffix(key, "_ids") || key == "roles" {
			return "an id"
		}
	case string:
		switch {
		case slices.Contains(secrets, key):
			return fmt.Sprintf("%d characters", len(v)/32*32)
		case moment.MatchString(v):
			return "a time"
		}
		return digits.ReplaceAllString(v, "#")
	}
	return v
}

func (o outcome) alike() outcome {
	out := outcome{fault: o.fault}
	for _, v := range o.data {
		out.data = append(out.data, alike("", v))
	}
	return out
}
