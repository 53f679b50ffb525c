// Package provider talks to language models: prompting.Model over OpenAI's chat completions, which vLLM, Ollama and
// llama.cpp speak too, and over Anthropic's messages, by the official SDKs. It asks once: retries, limits, budgets and
// the fence around data are others'. An answer's JSON is checked to be JSON, without doubled names, and brought back to
// the hook's schema (package strict); whether it fulfils that schema, which a server may have ignored, the caller validates.
package provider
