package rest

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
	wirev1 "github.com/sametick/sametick/proto/gen/go/sametick/wire/v1"
)

// codec is the suite's JSON of protobuf messages, for grpc-gateway: names as in the .proto files,
// fields in their order, 64-bit integers as numbers, unset fields that have presence as null, empty
// lists as [], maps of strings as objects, Json in place as its value, times in UTC with exactly milliseconds.
type codec struct{}

// ContentType implements runtime.Marshaler.
func (codec) ContentType(any) string { return "application/json" }

// Marshal implements runtime.Marshaler.
func (codec) Marshal(v any) ([]byte, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("rest: no JSON form for %T", v)
	}
	return appendMessage(nil, m.ProtoReflect())
}

// Unmarshal implements runtime.Marshaler.
func (codec) Unmarshal(data []byte, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("rest: no JSON form for %T", v)
	}
	return decodeBody(data, m, nil)
}

// NewEncoder implements runtime.Marshaler.
func (c codec) NewEncoder(w io.Writer) runtime.Encoder {
	return runtime.EncoderFunc(func(v any) error {
		b, err := c.Marshal(v)
		if err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	})
}

// NewDecoder implements runtime.Marshaler. The typed fault stays with the body, see problems.ofGRPC.
func (codec) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		b, ok := r.(*body)
		m, isMessage := v.(proto.Message)
		if !ok || !isMessage {
			return fmt.Errorf("rest: cannot decode %T from %T", v, r)
		}
		text, fault := b.read()
		if fault == nil {
			err := decodeBody(text, m, b.path)
			if err == nil {
				return nil
			}
			if !errors.As(err, &fault) {
				fault = errs.New(errs.Invalid, "MALFORMED_JSON", "the body cannot be read").WithCause(err)
			}
		}
		b.fault = fault
		return fault
	})
}

func appendMessage(b []byte, m protoreflect.Message) ([]byte, error) {
	switch m := m.Interface().(type) {
	case *wirev1.Json:
		return append(b, m.GetText()...), nil
	case *timestamppb.Timestamp:
		b = append(b, '"')
		b = m.AsTime().AppendFormat(b, event.TimeLayout)
		return append(b, '"'), nil
	}
	var err error
	b = append(b, '{')
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = append(b, field.Name()...)
		b = append(b, `":`...)
		switch {
		case field.IsList():
			b, err = appendList(b, m.Get(field).List(), field)
		case field.IsMap():
			b, err = appendMap(b, m.Get(field).Map())
		case field.HasPresence() && !m.Has(field):
			b = append(b, "null"...)
		default:
			b, err = appendValue(b, m.Get(field), field)
		}
		if err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

func appendList(b []byte, list protoreflect.List, field protoreflect.FieldDescriptor) ([]byte, error) {
	var err error
	b = append(b, '[')
	for i := range list.Len() {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = appendValue(b, list.Get(i), field); err != nil {
			return nil, err
		}
	}
	return append(b, ']'), nil
}

// appendMap writes a map of strings, in the order of its keys.
func appendMap(b []byte, m protoreflect.Map) ([]byte, error) {
	texts := make(map[string]string, m.Len())
	m.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		texts[k.String()] = v.String()
		return true
	})
	b = append(b, '{')
	for i, key := range slices.Sorted(maps.Keys(texts)) {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = jsontext.AppendQuote(b, key); err != nil {
			return nil, err
		}
		if b, err = jsontext.AppendQuote(append(b, ':'), texts[key]); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

func appendValue(b []byte, v protoreflect.Value, field protoreflect.FieldDescriptor) ([]byte, error) {
	switch field.Kind() {
	case protoreflect.StringKind:
		return jsontext.AppendQuote(b, v.String())
	case protoreflect.BoolKind:
		return strconv.AppendBool(b, v.Bool()), nil
	case protoreflect.Int32Kind, protoreflect.Int64Kind:
		return strconv.AppendInt(b, v.Int(), 10), nil
	case protoreflect.DoubleKind:
		return strconv.AppendFloat(b, v.Float(), 'f', -1, 64), nil
	case protoreflect.MessageKind:
		return appendMessage(b, v.Message())
	default:
		return nil, fmt.Errorf("rest: no JSON form for %s", field.FullName())
	}
}
