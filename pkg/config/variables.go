package config

import (
	"encoding"
	"fmt"
	"reflect"
	"strings"
	"text/tabwriter"
	"time"
)

type variable struct {
	name, help, allowed string
	def                 string
	required, secret    bool
	typ                 reflect.Type
}

// variables lists every tagged field of s, embedded and nested structs included, in order.
func variables(s reflect.Value) []variable {
	var out []variable
	for i := range s.NumField() {
		f := s.Type().Field(i)
		name, opts, _ := strings.Cut(f.Tag.Get("env"), ",")
		if name == "" {
			if f.Type.Kind() == reflect.Struct && f.IsExported() {
				out = append(out, variables(s.Field(i))...)
			}
			continue
		}
		v := variable{name: name, help: f.Tag.Get("help"), allowed: f.Tag.Get("allowed"), typ: f.Type}
		v.secret = f.Type == reflect.TypeFor[Secret]()
		v.required = strings.Contains(opts, "required")
		v.def = f.Tag.Get("envDefault")
		if !s.Field(i).IsZero() && !v.secret {
			v.def = text(s.Field(i))
		}
		out = append(out, v)
	}
	return out
}

// text is a value as one would write it in the environment.
func text(v reflect.Value) string {
	if v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.String {
		parts := make([]string, v.Len())
		for i := range parts {
			parts[i] = v.Index(i).String()
		}
		return strings.Join(parts, ",")
	}
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		if b, err := m.MarshalText(); err == nil {
			return string(b)
		}
	}
	return fmt.Sprint(v.Interface())
}

// wanted says what the variable is to be.
func (v variable) wanted() string {
	switch {
	case v.allowed != "":
		return "want " + v.allowed
	case v.help != "" && v.typ.Kind() == reflect.String:
		return "want " + v.help
	case v.typ == reflect.TypeFor[time.Duration]():
		return "want a duration such as 500ms, 30s or 24h"
	}
	switch v.typ.Kind() {
	case reflect.Bool:
		return "want true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return "want a whole number"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "want a whole number, not negative"
	case reflect.Float32, reflect.Float64:
		return "want a number"
	default:
		return "want " + v.help
	}
}

func (v variable) refuse(value string) string {
	if v.secret {
		return "is not allowed (not shown): " + v.wanted()
	}
	return fmt.Sprintf("is %q: %s", value, v.wanted())
}

// Help is the text of `SERVICE --help`: every variable dst names, with its default and meaning. Secrets'
// defaults are not shown.
func Help(service string, dst any) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s is configured by environment variables:\n\n", service)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, v := range variables(reflect.Indirect(reflect.ValueOf(dst))) {
		def := v.def
		switch {
		case v.required:
			def = "(required)"
		case def == "":
			def = "-"
		}
		_, _ = fmt.Fprintf(w, "  %s\t%s\t%s\n", v.name, def, v.meaning())
	}
	_ = w.Flush() // a strings.Builder takes everything
	return b.String()
}

func (v variable) meaning() string {
	if v.allowed == "" {
		return v.help
	}
	return v.help + " (" + v.allowed + ")"
}
