// Draws the Mandelbrot set in letters: a few million floating-point operations and a picture to see that they were right.
#include <stdio.h>

enum { WIDTH = 64, HEIGHT = 21, MOST_STEPS = 20000 };

static int steps_to_escape(double real, double imaginary) {
    double x = 0, y = 0;
    int steps = 0;
    while (x * x + y * y <= 4 && steps < MOST_STEPS) {
        double next = x * x - y * y + real;
        y = 2 * x * y + imaginary;
        x = next;
        steps++;
    }
    return steps;
}

int main(void) {
    static const char shades[] = " .:-=+*%";
    char line[WIDTH + 1];
    for (int row = 0; row < HEIGHT; row++) {
        for (int column = 0; column < WIDTH; column++) {
            int steps = steps_to_escape(-2.2 + 3.2 * column / WIDTH, -1.2 + 2.4 * row / (HEIGHT - 1));
            line[column] = steps == MOST_STEPS ? '#' : shades[steps < 8 ? steps : 7];
        }
        line[WIDTH] = 0;
        puts(line);
    }
    return 0;
}
