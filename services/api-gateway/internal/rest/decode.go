package rest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sametick/sametick/pkg/errs"
	wirev1 "github.com/sametick/sametick/proto/gen/go/sametick/wire/v1"
)

// maxNesting bounds how deep a body nests before its fields say what they allow.
const maxNesting = 100

// body is a request's body, with what only travels beside it: the path's variables on the way in, the
// typed fault on the way out.
type body struct {
	io.ReadCloser
	limit int64
	path  map[string]string
	fault *errs.Error
}

// read gives the whole body.
func (b *body) read() ([]byte, *errs.Error) {
	text, err := io.ReadAll(b)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, errs.New(errs.TooLarge, "BODY_TOO_LARGE", fmt.Sprintf("the body is larger than %d bytes", b.limit)).
			WithMeta("limit", strconv.FormatInt(b.limit, 10))
	case err != nil:
		return nil, errs.New(errs.Invalid, "BODY_INCOMPLETE", "the body did not arrive whole").WithCause(err)
	}
	return text, nil
}

// decodeBody reads a body into a message. A fault is an *errs.Error that names the field.
func decodeBody(text []byte, m proto.Message, path map[string]string) error {
	if len(text) == 0 && saidByPath(m.ProtoReflect().Descriptor().Fields(), path) {
		return nil
	}
	if err := checkText(text); err != nil {
		return err
	}
	d := jsontext.NewDecoder(bytes.NewReader(text))
	if d.PeekKind() != '{' {
		return errs.New(errs.Invalid, "MALFORMED_JSON", "the body must be a JSON object")
	}
	skip := func(name string) bool { _, taken := path[name]; return taken }
	return decodeMessage(d, m.ProtoReflect(), "", skip)
}

// saidByPath: nothing has to stand in the body, as in that of :redeliver.
func saidByPath(fields protoreflect.FieldDescriptors, path map[string]string) bool {
	for i := range fields.Len() {
		f := fields.Get(i)
		if _, taken := path[string(f.Name())]; !taken && !f.HasOptionalKeyword() {
			return false
		}
	}
	return true
}

// checkText refuses what is not one well-formed JSON value, and says where.
func checkText(text []byte) error {
	malformed := func(reason, message string, at int64, pointer jsontext.Pointer) error {
		e := errs.New(errs.Invalid, reason, message).WithMeta("offset", strconv.FormatInt(at, 10))
		if field := dotted(pointer); field != "" {
			e = e.WithField(field, reason, message)
		}
		return e
	}
	if i := invalidUTF8(text); i >= 0 {
		return malformed("INVALID_UTF8", fmt.Sprintf("the body is not UTF-8 at byte %d", i), int64(i), "")
	}
	d := jsontext.NewDecoder(bytes.NewReader(text))
	for {
		t, err := d.ReadToken()
		switch {
		case errors.Is(err, io.EOF) && d.InputOffset() == 0:
			return malformed("EMPTY_BODY", "the body must be a JSON object", 0, "")
		case err != nil:
			return syntaxFault(text, err, malformed)
		case d.StackDepth() > maxNesting:
			return malformed("TOO_DEEP", fmt.Sprintf("more than %d levels of objects and arrays", maxNesting), d.InputOffset(), "")
		case t.Kind() == '"' && strings.ContainsRune(t.String(), 0):
			return malformed("NUL_CHARACTER", "a text has the NUL character (U+0000)", d.InputOffset(), d.StackPointer())
		case d.StackDepth() == 0:
			if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
				return malformed("MALFORMED_JSON", fmt.Sprintf("something follows the JSON value at byte %d", d.InputOffset()), d.InputOffset(), "")
			}
			return nil
		}
	}
}

func syntaxFault(text []byte, err error, malformed func(string, string, int64, jsontext.Pointer) error) error {
	var syntax *jsontext.SyntacticError
	if !errors.As(err, &syntax) {
		return malformed("MALFORMED_JSON", "the body is no JSON", 0, "")
	}
	at := syntax.ByteOffset
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		return malformed("DUPLICATE_KEY", fmt.Sprintf("a key occurs twice in one object, at byte %d", at), at, syntax.JSONPointer)
	case isSurrogate(text, at):
		return malformed("LONE_SURROGATE", fmt.Sprintf("a text has half of a surrogate pair at byte %d", at), at, syntax.JSONPointer)
	default:
		return malformed("MALFORMED_JSON", fmt.Sprintf("the body is malformed JSON at byte %d", at), at, syntax.JSONPointer)
	}
}

// isSurrogate tells whether what the strict reader refuses at an offset passes a reader that takes
// broken text: in valid UTF-8 only an escaped half of a surrogate pair does.
func isSurrogate(text []byte, at int64) bool {
	d := jsontext.NewDecoder(bytes.NewReader(text), jsontext.AllowInvalidUTF8(true))
	var syntax *jsontext.SyntacticError
	for {
		_, err := d.ReadToken()
		switch {
		case errors.As(err, &syntax):
			return syntax.ByteOffset > at
		case err != nil:
			return true
		}
	}
}

func invalidUTF8(text []byte) int {
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// decodeMessage reads the members of an object. Where the message has an update_mask, it names them.
func decodeMessage(d *jsontext.Decoder, m protoreflect.Message, prefix string, skip func(string) bool) error {
	if _, err := d.ReadToken(); err != nil { // {
		return err
	}
	var named []string
	for d.PeekKind() == '"' {
		t, err := d.ReadToken()
		if err != nil {
			return err
		}
		name := t.String()
		field := m.Descriptor().Fields().ByName(protoreflect.Name(name))
		if field == nil || skip(name) || name == "update_mask" {
			return fieldFault(prefix+printable(name), "UNKNOWN_FIELD", "one of: "+strings.Join(fieldNames(m, skip), ", "))
		}
		named = append(named, name)
		if d.PeekKind() == 'n' {
			if err := d.SkipValue(); err != nil {
				return err
			}
			continue
		}
		if err := decodeField(d, m, field, prefix+name); err != nil {
			return err
		}
	}
	if mask := m.Descriptor().Fields().ByName("update_mask"); mask != nil {
		paths := slices.DeleteFunc(named, func(n string) bool { return n == "version" || n == "id" })
		m.Set(mask, protoreflect.ValueOfMessage((&fieldmaskpb.FieldMask{Paths: paths}).ProtoReflect()))
	}
	_, err := d.ReadToken() // }
	return err
}

func fieldNames(m protoreflect.Message, skip func(string) bool) (names []string) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		if name := string(fields.Get(i).Name()); !skip(name) && name != "update_mask" {
			names = append(names, name)
		}
	}
	return names
}

func decodeField(d *jsontext.Decoder, m protoreflect.Message, field protoreflect.FieldDescriptor, path string) error {
	if field.IsMap() {
		return decodeMap(d, m.Mutable(field).Map(), path)
	}
	if !field.IsList() {
		v, err := decodeValue(d, field, path)
		if err == nil {
			m.Set(field, v)
		}
		return err
	}
	if d.PeekKind() != '[' {
		return fieldFault(path, "INVALID_TYPE", "an array")
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	list := m.Mutable(field).List()
	for d.PeekKind() != ']' {
		v, err := decodeValue(d, field, fmt.Sprintf("%s[%d]", path, list.Len()))
		if err != nil {
			return err
		}
		list.Append(v)
	}
	_, err := d.ReadToken()
	return err
}

// decodeMap reads an object of strings.
func decodeMap(d *jsontext.Decoder, m protoreflect.Map, path string) error {
	if d.PeekKind() != '{' {
		return fieldFault(path, "INVALID_TYPE", "an object of strings")
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	for d.PeekKind() == '"' {
		key, err := d.ReadToken()
		if err != nil {
			return err
		}
		name := key.String()
		raw, err := d.ReadValue()
		if err != nil {
			return err
		}
		text, ok := unquote(raw)
		if !ok {
			return fieldFault(path+"."+printable(name), "INVALID_TYPE", "a string")
		}
		m.Set(protoreflect.ValueOfString(name).MapKey(), protoreflect.ValueOfString(text))
	}
	_, err := d.ReadToken() // }
	return err
}

func decodeValue(d *jsontext.Decoder, field protoreflect.FieldDescriptor, path string) (protoreflect.Value, error) {
	raw, err := d.ReadValue()
	if err != nil {
		return protoreflect.Value{}, err
	}
	switch field.Kind() {
	case protoreflect.StringKind:
		if text, ok := unquote(raw); ok {
			return protoreflect.ValueOfString(text), nil
		}
		return protoreflect.Value{}, fieldFault(path, "INVALID_TYPE", "a string")
	case protoreflect.BoolKind:
		if raw.Kind() == 't' || raw.Kind() == 'f' {
			return protoreflect.ValueOfBool(raw.Kind() == 't'), nil
		}
		return protoreflect.Value{}, fieldFault(path, "INVALID_TYPE", "true or false")
	case protoreflect.Int32Kind, protoreflect.Int64Kind:
		bits := 64
		if field.Kind() == protoreflect.Int32Kind {
			bits = 32
		}
		n, err := strconv.ParseInt(string(raw), 10, bits)
		if err != nil {
			return protoreflect.Value{}, fieldFault(path, "INVALID_TYPE", fmt.Sprintf("an integer of %d bits", bits))
		}
		if bits == 32 {
			return protoreflect.ValueOfInt32(int32(n)), nil
		}
		return protoreflect.ValueOfInt64(n), nil
	case protoreflect.MessageKind:
		return decodeKnown(raw, field, path)
	default:
		return protoreflect.Value{}, fmt.Errorf("rest: no JSON form for %s", field.FullName())
	}
}

// decodeKnown reads messages: those that have a JSON form of their own, and objects.
func decodeKnown(raw jsontext.Value, field protoreflect.FieldDescriptor, path string) (protoreflect.Value, error) {
	switch field.Message().FullName() {
	case "sametick.wire.v1.Json":
		return protoreflect.ValueOfMessage((&wirev1.Json{Text: string(raw)}).ProtoReflect()), nil
	case "google.protobuf.Timestamp":
		text, _ := unquote(raw)
		t, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return protoreflect.Value{}, fieldFault(path, "INVALID_TIME", "a time as in RFC 3339: 2026-04-12T14:30:00Z")
		}
		return protoreflect.ValueOfMessage(timestamppb.New(t).ProtoReflect()), nil
	}
	if raw.Kind() != '{' {
		return protoreflect.Value{}, fieldFault(path, "INVALID_TYPE", "an object")
	}
	kind, err := protoregistry.GlobalTypes.FindMessageByName(field.Message().FullName())
	if err != nil {
		return protoreflect.Value{}, fmt.Errorf("rest: no JSON form for %s: %w", field.FullName(), err)
	}
	m := kind.New()
	err = decodeMessage(jsontext.NewDecoder(bytes.NewReader(raw)), m, path+".", func(string) bool { return false })
	return protoreflect.ValueOfMessage(m), err
}

func unquote(raw jsontext.Value) (string, bool) {
	if raw.Kind() != '"' {
		return "", false
	}
	text, err := jsontext.AppendUnquote(nil, raw)
	return string(text), err == nil
}

func fieldFault(field, reason, allowed string) error {
	return errs.New(errs.Invalid, "INVALID_REQUEST", "the request has invalid fields").WithField(field, reason, allowed)
}

// dotted writes a JSON pointer (RFC 6901) as fields are named here: attributes.a.b.
func dotted(p jsontext.Pointer) string {
	var parts []string
	for token := range p.Tokens() {
		parts = append(parts, printable(token))
	}
	return strings.Join(parts, ".")
}

// printable shortens a name that a stranger sent and we quote, and shows its control characters.
func printable(s string) string {
	quoted := strconv.Quote(s)
	s = quoted[1 : len(quoted)-1]
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "") + "…"
	}
	return s
}

func mapKeys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}
