package tenancy_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const (
	jsonMessage = "sametick.wire.v1.Json"
	timeMessage = "google.protobuf.Timestamp"
)

// fill sets a message from JSON of this suite's form. What a change names it does by a mask, as REST does.
func fill(m protoreflect.Message, r request) error {
	if mask := m.Descriptor().Fields().ByName("update_mask"); mask != nil && r["update_mask"] == nil {
		paths := []any{}
		for _, name := range []string{"name", "attributes", "workflow_id", "step_id", "email", "roles", "scopes", "description", "schema"} {
			if _, ok := r[name]; ok && !slices.Contains(keyFields(), string(m.Descriptor().Name())+"."+name) {
				paths = append(paths, name)
			}
		}
		r = with(maps.Clone(r), request{"update_mask": request{"paths": paths}})
	}
	for name, v := range r {
		fd := m.Descriptor().Fields().ByName(protoreflect.Name(name))
		if fd == nil {
			return fmt.Errorf("%s has no field %s", m.Descriptor().FullName(), name)
		}
		switch {
		case v == nil:
		case fd.IsList():
			items, ok := v.([]any)
			if !ok {
				return fmt.Errorf("%s is a list", fd.FullName())
			}
			list := m.Mutable(fd).List()
			for _, item := range items {
				element, err := single(fd, item, list.NewElement)
				if err != nil {
					return err
				}
				list.Append(element)
			}
		default:
			element, err := single(fd, v, func() protoreflect.Value { return m.NewField(fd) })
			if err != nil {
				return err
			}
			m.Set(fd, element)
		}
	}
	return nil
}

func single(fd protoreflect.FieldDescriptor, v any, fresh func() protoreflect.Value) (protoreflect.Value, error) {
	switch fd.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(plain(v)), nil
	case protoreflect.Int64Kind, protoreflect.Int32Kind:
		var n int64
		if _, err := fmt.Sscan(text(v), &n); err != nil {
			return protoreflect.Value{}, fmt.Errorf("%s: %w", fd.FullName(), err)
		}
		if fd.Kind() == protoreflect.Int32Kind {
			return protoreflect.ValueOfInt32(int32(n)), nil
		}
		return protoreflect.ValueOfInt64(n), nil
	case protoreflect.BoolKind:
		b, _ := v.(bool)
		return protoreflect.ValueOfBool(b), nil
	case protoreflect.MessageKind:
		out := fresh()
		switch fd.Message().FullName() {
		case jsonMessage:
			return out, fill(out.Message(), request{"text": text(v)})
		case timeMessage:
			at, err := time.Parse(time.RFC3339, plain(v))
			stamp := timestamppb.New(at)
			out.Message().Set(fd.Message().Fields().ByName("seconds"), protoreflect.ValueOfInt64(stamp.GetSeconds()))
			return out, err
		}
		members, ok := v.(request)
		if !ok {
			return out, fmt.Errorf("%s is a message", fd.FullName())
		}
		return out, fill(out.Message(), members)
	default:
		return protoreflect.Value{}, fmt.Errorf("%s: teach proto_test.go the kind %s", fd.FullName(), fd.Kind())
	}
}

// plainJSON gives a message as JSON of this suite's form, numbers as they are.
func plainJSON(m protoreflect.Message) any {
	fields := m.Descriptor().Fields()
	switch m.Descriptor().FullName() {
	case jsonMessage:
		return json.RawMessage(m.Get(fields.ByName("text")).String())
	case timeMessage:
		return time.Unix(m.Get(fields.ByName("seconds")).Int(), 0).UTC().Format(time.RFC3339)
	}
	out := request{}
	for i := range fields.Len() {
		fd := fields.Get(i)
		value := m.Get(fd)
		switch {
		case fd.IsList():
			items := []any{}
			for j := range value.List().Len() {
				items = append(items, plainValue(fd, value.List().Get(j)))
			}
			out[string(fd.Name())] = items
		case fd.IsMap():
			out[string(fd.Name())] = value.String()
		case fd.HasPresence() && !m.Has(fd):
			out[string(fd.Name())] = nil
		default:
			out[string(fd.Name())] = plainValue(fd, value)
		}
	}
	return out
}

func plainValue(fd protoreflect.FieldDescriptor, v protoreflect.Value) any {
	if fd.Kind() == protoreflect.MessageKind {
		return plainJSON(v.Message())
	}
	if fd.Kind() == protoreflect.BytesKind {
		return string(v.Bytes())
	}
	return v.Interface()
}
