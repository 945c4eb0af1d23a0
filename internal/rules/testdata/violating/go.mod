module github.com/bowline-dev/bowline

go 1.26.0
