package archtest

import (
	"fmt"
	"go/ast"
	"go/token"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The limits of STYLE: long things are read by nobody.
const (
	maxFileLines, maxTestLines = 400, 700
	maxFuncLines               = 80
	maxMainLines               = 30
)

// forbiddenNames say nothing about what is inside.
var forbiddenNames = []string{"util", "utils", "common", "helper", "helpers", "errors", "misc", "shared", "base"}

// sqlstate is what a literal of an SQLSTATE code looks like: the classes this suite meets, and a
// condition that begins with a digit or the P of procedural codes (so not a size such as "256MB").
var sqlstate = regexp.MustCompile(`^(08|22|23|25|40|42|53|54|55|57|58|P0|XX)[0-9P][0-9][0-9A-Z]$`)

var fileRules = []func(*file) []Violation{imports, length, functions, names, processEnd, serverErrors}

func length(f *file) []Violation {
	limit := maxFileLines
	switch {
	case strings.HasPrefix(f.dir, genDir):
		return nil
	case f.test:
		limit = maxTestLines
	case isCommand(f):
		limit = maxMainLines
	}
	if f.lines <= limit {
		return nil
	}
	return []Violation{{"length", f.path, fmt.Sprintf("%d lines, at most %d", f.lines, limit)}}
}

// isCommand: services/S/cmd/S/main.go only calls the app.
func isCommand(f *file) bool {
	return strings.HasPrefix(f.dir, "services/") && strings.Contains(f.dir, "/cmd/") && strings.HasSuffix(f.path, "/main.go")
}

// functions finds long ones, and init, which acts before main decided anything.
func functions(f *file) []Violation {
	if strings.HasPrefix(f.dir, genDir) {
		return nil
	}
	var out []Violation
	for _, d := range f.syntax.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		lines := f.fset.Position(fn.End()).Line - f.fset.Position(fn.Pos()).Line + 1
		if lines > maxFuncLines && !f.test {
			out = append(out, Violation{"length", f.at(fn.Pos()), fmt.Sprintf("%s has %d lines, at most %d", fn.Name.Name, lines, maxFuncLines)})
		}
		if fn.Name.Name == "init" && fn.Recv == nil {
			out = append(out, Violation{"init", f.at(fn.Pos()), "an init function"})
		}
	}
	return out
}

func names(f *file) []Violation {
	if slices.Contains(forbiddenNames, strings.TrimSuffix(f.syntax.Name.Name, "_test")) {
		return []Violation{{"name", f.path, "a package named " + f.syntax.Name.Name}}
	}
	return nil
}

// processEnd: only main ends the process; anywhere else it would skip what others have to finish.
func processEnd(f *file) []Violation {
	if strings.HasPrefix(f.dir, genDir) {
		return nil
	}
	var out []Violation
	check := func(n ast.Node, inMain bool) {
		ast.Inspect(n, func(n ast.Node) bool {
			pkg, name := selector(n)
			fatal := pkg == "log" && (strings.HasPrefix(name, "Fatal") || strings.HasPrefix(name, "Panic"))
			if fatal || pkg == "os" && name == "Exit" && !inMain {
				out = append(out, Violation{"exit", f.at(n.Pos()), pkg + "." + name + " outside of main"})
			}
			return true
		})
	}
	for _, d := range f.syntax.Decls {
		fn, ok := d.(*ast.FuncDecl)
		isMain := ok && fn.Recv == nil && (fn.Name.Name == "main" && f.syntax.Name.Name == "main" || fn.Name.Name == "TestMain" && f.test)
		check(d, isMain)
	}
	return out
}

// selector is pkg.name of an expression of that form, for packages by their usual names.
func selector(n ast.Node) (pkg, name string) {
	s, ok := n.(*ast.SelectorExpr)
	if !ok {
		return "", ""
	}
	if id, ok := s.X.(*ast.Ident); ok {
		return id.Name, s.Sel.Name
	}
	return "", ""
}

// serverErrors: one package knows what Postgres' codes mean.
func serverErrors(f *file) []Violation {
	if f.dir == "pkg/pg" || f.dir == "pkg/archtest" || f.test || strings.HasPrefix(f.dir, genDir) {
		return nil
	}
	var out []Violation
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		if pkg, name := selector(n); pkg == "pgconn" && name == "PgError" || pkg == "pgerrcode" {
			out = append(out, Violation{"sqlstate", f.at(n.Pos()), pkg + "." + name + " outside of pkg/pg"})
		}
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if s, err := strconv.Unquote(lit.Value); err == nil && sqlstate.MatchString(s) {
				out = append(out, Violation{"sqlstate", f.at(lit.Pos()), "SQLSTATE " + s + " outside of pkg/pg"})
			}
		}
		return true
	})
	return out
}
