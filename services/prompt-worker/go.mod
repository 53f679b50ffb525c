module github.com/sametick/sametick/services/prompt-worker

go 1.26.0
