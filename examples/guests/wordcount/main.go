// Wordcount counts the words of its arguments, or of this file where it has none, and prints the most frequent.
//
// A Go program is a useful test of limits: about 3,000 functions, its own garbage collector, and 2 MiB of code.
package main

import (
	_ "embed"
	"fmt"
	"os"
	"sort"
	"strings"
	"unicode"
)

//go:embed main.go
var source string

const most = 5

func main() {
	text := strings.Join(os.Args[1:], " ")
	if text == "" {
		text = source
	}
	counts := map[string]int{}
	for _, word := range strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return !unicode.IsLetter(r) }) {
		counts[word]++
	}
	words := make([]string, 0, len(counts))
	for word := range counts {
		words = append(words, word)
	}
	sort.Slice(words, func(i, j int) bool {
		a, b := words[i], words[j]
		return counts[a] > counts[b] || counts[a] == counts[b] && a < b
	})
	for _, word := range words[:min(most, len(words))] {
		fmt.Printf("%4d %s\n", counts[word], word)
	}
}
