// What Go's own library makes of WASI preview 1: arguments, environment, time, randomness, files. Exits with 42.
package main

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"
)

func check(holds bool, what string, details ...any) {
	if !holds {
		fmt.Fprintln(os.Stderr, append([]any{what}, details...)...)
		os.Exit(1)
	}
}

func main() {
	check(strings.Join(os.Args, "|") == "program|an argument", "arguments", os.Args)
	check(strings.Join(os.Environ(), "|") == "NAME=value", "environment", os.Environ())

	before := time.Now()
	check(before.Year() > 2023, "the time", before)
	done := make(chan bool)
	go func() { time.Sleep(20 * time.Millisecond); done <- true }()
	<-done
	check(time.Since(before) >= 20*time.Millisecond, "a goroutine sleeps", time.Since(before))

	random := make([]byte, 100000)
	count, err := rand.Read(random)
	check(err == nil && count == len(random) && strings.Count(string(random), "\x00") < 1000, "random numbers", err)

	_, err = bufio.NewReader(os.Stdin).ReadByte()
	check(err == io.EOF, "standard input is at its end", err)

	key, err := os.ReadFile("/etc/app/key")
	check(err == nil && string(key) == "0123456789", "a file", key, err)
	large, err := os.ReadFile("/secret/large")
	check(err == nil && len(large) == 3_000_000 && strings.Count(string(large), "a") == len(large), "a large file", err)
	_, err = os.ReadFile("/etc/app/no")
	check(errors.Is(err, fs.ErrNotExist), "no file", err)
	_, err = os.ReadFile("/etc/app")
	check(errors.Is(err, syscall.EISDIR), "a directory is no file", err)
	_, err = os.ReadFile("/etc/app/key/")
	check(err == nil || errors.Is(err, syscall.ENOTDIR), "a file is no directory", err)

	file, err := os.Open("/etc/app/key")
	check(err == nil, "open", err)
	at, err := file.Seek(-3, io.SeekEnd)
	rest, _ := io.ReadAll(file)
	check(err == nil && at == 7 && string(rest) == "789", "seek", at, rest, err)
	piece := make([]byte, 2)
	_, err = file.ReadAt(piece, 4)
	check(err == nil && string(piece) == "45", "read at", piece, err)
	info, err := file.Stat()
	check(err == nil && info.Size() == 10 && info.Mode().IsRegular(), "stat", info, err)
	check(file.Close() == nil, "close")

	var seen []string
	err = fs.WalkDir(os.DirFS("/etc/app"), ".", func(path string, entry fs.DirEntry, err error) error {
		seen = append(seen, fmt.Sprintf("%s:%t", path, entry.IsDir()))
		return err
	})
	check(err == nil && strings.Join(seen, " ") == ".:true key:false tls:true tls/ca.crt:false", "walk", seen, err)
	many, err := os.ReadDir("/secret/many")
	check(err == nil && len(many) == 1000 && many[999].Name() == "file-0999", "a large directory", len(many), err)

	check(errors.Is(os.WriteFile("/etc/app/key", key, 0o600), syscall.EROFS), "write")
	check(errors.Is(os.WriteFile("/etc/app/new", key, 0o600), syscall.EROFS), "create")
	check(errors.Is(os.Mkdir("/etc/app/new", 0o700), syscall.EROFS), "make a directory")
	check(os.MkdirAll("/etc/app/tls", 0o700) == nil, "make a directory that there is")
	check(errors.Is(os.Remove("/etc/app/key"), syscall.EROFS), "remove")
	check(errors.Is(os.Rename("/etc/app/key", "/etc/app/new"), syscall.EROFS), "rename")
	check(errors.Is(os.Symlink("key", "/etc/app/new"), syscall.EROFS), "symlink")
	check(errors.Is(os.Chtimes("/etc/app/key", before, before), syscall.EROFS), "set times")

	fmt.Println("to standard output")
	os.Exit(42)
}
