// Package e2e tests the suite as its users meet it: every service a process, a token from `make up`, the
// specification's requests over HTTP, and the command line. What one service does is tested beside it;
// here is only what needs all of them.
package e2e
