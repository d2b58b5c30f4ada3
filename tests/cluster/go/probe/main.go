// What a pod can do, tried from inside one: each argument is a question, and its answer is one line.
//
//	pages=N    map N huge pages of 2 MiB and touch them all
//	api=PATH   ask the API server, as the pod's service account, at the address that the kubelet gave
//	get=URL    ask anybody, for ten seconds: a Service's rules come a moment after the Service
//	serve      answer on port 8080 until the end
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	account  = "/var/run/secrets/kubernetes.io/serviceaccount/"
	page     = 2 << 20
	mapFlags = syscall.MAP_PRIVATE | syscall.MAP_ANONYMOUS | syscall.MAP_HUGETLB
)

func main() {
	for _, question := range os.Args[1:] {
		name, argument, _ := strings.Cut(question, "=")
		answer, err := ask(name, argument)
		if err != nil {
			fmt.Printf("%s: error: %v\n", question, err)
			continue
		}
		fmt.Printf("%s: %s\n", question, answer)
	}
}

func ask(name, argument string) (string, error) {
	switch name {
	case "pages":
		return pages(argument)
	case "api":
		return api(argument)
	case "get":
		return getSoon(argument)
	case "serve":
		http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "hello, %s", r.URL.Path) })
		return "", http.ListenAndServe(":8080", nil)
	}
	return "", fmt.Errorf("no such question")
}

func pages(argument string) (string, error) {
	count, err := strconv.Atoi(argument)
	if err != nil {
		return "", err
	}
	memory, err := syscall.Mmap(-1, 0, count*page, syscall.PROT_READ|syscall.PROT_WRITE, mapFlags)
	if err != nil {
		return "", err
	}
	for at := 0; at < len(memory); at += page {
		memory[at] = 1
	}
	return "touched", syscall.Munmap(memory)
}

func api(path string) (string, error) {
	token, err := os.ReadFile(account + "token")
	if err != nil {
		return "", err
	}
	authority, err := os.ReadFile(account + "ca.crt")
	if err != nil {
		return "", err
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(authority)
	// The name that in-cluster clients verify, at the address that they use.
	secured := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted, ServerName: "kubernetes.default.svc"}}
	client := http.Client{Timeout: 5 * time.Second, Transport: secured}
	server := net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT"))
	return get(client, "https://"+server+path, string(token))
}

func getSoon(url string) (string, error) {
	client := http.Client{Timeout: 5 * time.Second}
	answer, err := get(client, url, "")
	for deadline := time.Now().Add(10 * time.Second); err != nil && time.Now().Before(deadline); {
		time.Sleep(200 * time.Millisecond)
		answer, err = get(client, url, "")
	}
	return answer, err
}

func get(client http.Client, url, token string) (string, error) {
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 4096))
	return fmt.Sprintf("%d %s", answer.StatusCode, strings.Join(strings.Fields(string(body)), " ")), err
}
