// Package config reads a service's configuration from the environment, and only from there.
//
// A service declares a struct of fields tagged `env:"NAME"` (github.com/caarlos0/env), with
// `help:"…"`, optionally `allowed:"…"`, and embeds the common parts below. Defaults are the values
// the struct holds when it is given to Load (zero values apart), else `envDefault` tags. An empty variable counts as unset.
package config

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/caarlos0/env/v11"
)

// Problem is one variable that is missing or wrong.
type Problem struct {
	// Name of the variable.
	Name string
	// Text says what is wrong and what is allowed; it never contains a secret.
	Text string
}

// Error is every problem of an environment at once.
type Error struct{ Problems []Problem }

// Error lists the problems, a line each.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("configuration:")
	for _, p := range e.Problems {
		b.WriteString("\n  " + p.Name + " " + p.Text)
	}
	return b.String()
}

// validator is a part of a configuration with rules over its values.
type validator interface{ Validate() []Problem }

// Load fills dst, a pointer to a struct, from getenv (os.Getenv in main), which is asked only for
// the variables dst names. On problems it returns an *Error with all of them and leaves dst as it was.
func Load(dst any, getenv func(string) string) error {
	root := reflect.ValueOf(dst)
	if root.Kind() != reflect.Pointer || root.Elem().Kind() != reflect.Struct {
		return fmt.Errorf("config: Load wants a pointer to a struct, got %T", dst)
	}
	vars, environ := variables(root.Elem()), map[string]string{}
	var problems []Problem
	for _, v := range vars {
		value := getenv(v.name)
		if value == "" {
			if v.required {
				problems = append(problems, Problem{v.name, "is not set: " + v.wanted()})
			}
			if v.def != "" { // a value in dst goes before the tag's default
				environ[v.name] = v.def
			}
			continue
		}
		environ[v.name] = value
		if err := parse(fresh(root), map[string]string{v.name: value}); isParse(err) {
			problems = append(problems, Problem{v.name, v.refuse(value)})
		}
	}
	if len(problems) > 0 {
		return &Error{problems}
	}
	filled := fresh(root)
	if err := parse(filled, environ); err != nil {
		return fmt.Errorf("config: a default does not parse: %w", err)
	}
	if problems = validate(filled.Elem()); len(problems) > 0 {
		return &Error{problems}
	}
	root.Elem().Set(filled.Elem())
	return nil
}

func fresh(root reflect.Value) reflect.Value {
	c := reflect.New(root.Elem().Type())
	c.Elem().Set(root.Elem())
	return c
}

func parse(dst reflect.Value, environ map[string]string) error {
	return env.ParseWithOptions(dst.Interface(), env.Options{Environment: environ})
}

// isParse tells a value that does not parse from required variables that are absent on purpose: Load
// gives the library one variable at a time, because its errors name fields, not variables.
func isParse(err error) bool {
	var all env.AggregateError
	if !errors.As(err, &all) {
		return err != nil
	}
	for _, e := range all.Errors {
		var missing env.VarIsNotSetError
		if !errors.As(e, &missing) {
			return true
		}
	}
	return false
}

// validate asks dst and every struct in it; an embedded part's Validate is promoted to the whole,
// so the whole is asked only when it has its own.
func validate(s reflect.Value) []Problem {
	var problems []Problem
	seen := map[Problem]bool{}
	var walk func(reflect.Value)
	walk = func(s reflect.Value) {
		if v, ok := s.Addr().Interface().(validator); ok {
			for _, p := range v.Validate() {
				if !seen[p] {
					seen[p] = true
					problems = append(problems, p)
				}
			}
		}
		for i := range s.NumField() {
			if f := s.Field(i); f.Kind() == reflect.Struct && f.CanSet() {
				walk(f)
			}
		}
	}
	walk(s)
	return problems
}
