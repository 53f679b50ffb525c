// Checkers, apart from the generators: their dependencies conflict.
module github.com/sametick/sametick/tools/lint

go 1.26.0
