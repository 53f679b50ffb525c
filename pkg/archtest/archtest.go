// Package archtest is the import rules and shape of this repository as a test: which package may
// import which, how long files and functions may be, and what only some places may do. It reads source
// text alone (go/parser), so it is fast and needs no build. The rules' reasons are beside them.
package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Module is the import path of the repository's root.
const Module = "github.com/sametick/sametick/"

// Violation is one broken rule.
type Violation struct {
	// Rule is its short name.
	Rule string
	// Where is file or file:line, relative to the repository.
	Where string
	// Text says what is wrong.
	Text string
}

// String is the violation on one line.
func (v Violation) String() string { return v.Where + ": " + v.Text + " [" + v.Rule + "]" }

// file is one parsed file and where it lies.
type file struct {
	path, dir string
	test      bool
	lines     int
	syntax    *ast.File
	fset      *token.FileSet
}

func (f *file) at(p token.Pos) string { return f.path + ":" + strconv.Itoa(f.fset.Position(p).Line) }

// imports lists import paths; those of this repository relative to its root.
func (f *file) imports() []string {
	var out []string
	for _, i := range f.syntax.Imports {
		p, _ := strconv.Unquote(i.Path.Value) // the parser has checked it
		out = append(out, strings.TrimPrefix(p, Module))
	}
	return out
}

// Check reads every Go file under root, which must be the root of the repository, and returns what
// breaks a rule, sorted. An error means a file could not be read or parsed.
func Check(root fs.FS) ([]Violation, error) {
	files, err := load(root)
	if err != nil {
		return nil, err
	}
	var out []Violation
	for _, f := range files {
		for _, rule := range fileRules {
			out = append(out, rule(f)...)
		}
	}
	out = append(out, packageComments(files)...)
	slices.SortFunc(out, func(a, b Violation) int { return strings.Compare(a.String(), b.String()) })
	return out, nil
}

func load(root fs.FS) ([]*file, error) {
	var files []*file
	err := fs.WalkDir(root, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && p != "." && (strings.HasPrefix(d.Name(), ".") || slices.Contains([]string{"testdata", "bin", "out", "vendor"}, d.Name())) {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(p, ".go") {
			return nil
		}
		f, err := parse(root, p)
		if f != nil {
			files = append(files, f)
		}
		return err
	})
	return files, err
}

func parse(root fs.FS, p string) (*file, error) {
	src, err := fs.ReadFile(root, p)
	if err != nil {
		return nil, err
	}
	fset := token.NewFileSet()
	syntax, err := parser.ParseFile(fset, p, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, fmt.Errorf("archtest: %w", err)
	}
	if ast.IsGenerated(syntax) && !strings.HasPrefix(p, genDir) {
		return nil, nil
	}
	return &file{
		path: p, dir: path.Dir(p), test: strings.HasSuffix(p, "_test.go"),
		lines: strings.Count(string(src), "\n"), syntax: syntax, fset: fset,
	}, nil
}

// packageComments: a stranger must learn from each package what lives there and what does not.
func packageComments(files []*file) []Violation {
	documented, first := map[string]bool{}, map[string]string{}
	for _, f := range files {
		if f.test || strings.HasPrefix(f.dir, genDir) {
			continue
		}
		if _, ok := first[f.dir]; !ok {
			first[f.dir] = f.path
		}
		documented[f.dir] = documented[f.dir] || f.syntax.Doc != nil
	}
	var out []Violation
	for dir, p := range first {
		if !documented[dir] {
			out = append(out, Violation{"package-comment", p, "package " + dir + " has no comment"})
		}
	}
	return out
}
