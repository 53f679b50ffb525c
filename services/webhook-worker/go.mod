module github.com/sametick/sametick/services/webhook-worker

go 1.26.0
