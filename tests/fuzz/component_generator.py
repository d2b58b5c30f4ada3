"""Makes components at random that are valid: nested, instantiated any number of times, wired with each other."""

import random
from dataclasses import dataclass, field
from itertools import count
from typing import Literal

Takes = Literal["nothing", "module", "component"]
LEVELS = 3
STEPS = (14, 10, 8, 6)
"""At most, by level."""


@dataclass(frozen=True)
class Made:
    """A component or an instance, by its name in the text. `exports`: "module", "component" or both."""

    name: str
    exports: frozenset[str]
    takes: Takes = "nothing"


@dataclass
class Generator:
    """Of one component and all that is in it."""

    chance: random.Random
    names: "count[int]" = field(default_factory=count)

    def component(self) -> str:
        """The text of one."""
        return f"(component $root {' '.join(_Body(self, 'root', None).fill())})"

    def name(self, letter: str) -> str:
        """A new one."""
        return f"{letter}{next(self.names)}"


@dataclass
class _Body:
    generator: Generator
    name: str
    parent: "_Body | None"
    level: int = 0
    lines: list[str] = field(default_factory=list[str])
    modules: list[str] = field(default_factory=list[str])
    components: list[Made] = field(default_factory=list[Made])
    instances: list[Made] = field(default_factory=list[Made])

    def fill(self) -> list[str]:
        """Adds steps at random."""
        steps = [
            self.module,
            self.nested,
            self.nested,
            self.outer,
            self.core_instance,
            self.core_instance,
            self.instance,
            self.instance,
            self.bundle,
            self.taken,
        ]
        self.module()
        for _ in range(self.generator.chance.randrange(2, STEPS[self.level])):
            self.generator.chance.choice(steps)()
        self.instance()
        self.core_instance()
        return self.lines

    def module(self) -> None:
        chance, name = self.generator.chance, self.generator.name("m")
        memory = f"(memory {chance.randrange(9)})" if chance.random() < 0.6 else ""
        tables = "".join(f"(table {chance.randrange(99)} funcref)" for _ in range(chance.randrange(3)))
        self.lines.append(f"(core module ${name} {memory} {tables})")
        self.modules.append(name)

    def nested(self) -> None:
        if self.level == LEVELS:
            return
        chance = self.generator.chance
        inner = _Body(self.generator, self.generator.name("c"), self, self.level + 1)
        takes: Takes = chance.choice(("nothing", "nothing", "module", "component"))
        argument = self.generator.name("a")
        if takes == "module":
            inner.lines.append(f'(import "given" (core module ${argument}))')
            inner.modules.append(argument)
        elif takes == "component":
            inner.lines.append(f'(import "given" (component ${argument}))')
            inner.components.append(Made(argument, frozenset()))
        inner.fill()
        exports = inner.export()
        self.lines.append(f"(component ${inner.name} {' '.join(inner.lines)})")
        self.components.append(Made(inner.name, exports, takes))

    def export(self) -> frozenset[str]:
        chance, exports = self.generator.chance, set[str]()
        if self.modules and chance.random() < 0.5:
            new = self.generator.name("m")
            self.lines.append(f'(export ${new} "module" (core module ${chance.choice(self.modules)}))')
            self.modules.append(new)
            exports.add("module")
        plain = [made for made in self.components if made.takes == "nothing"]
        if plain and chance.random() < 0.5:
            self.lines.append(f'(export "component" (component ${chance.choice(plain).name}))')
            exports.add("component")
        return frozenset(exports)

    def outer(self) -> None:
        chance, bodies = self.generator.chance, list[_Body]()
        body = self.parent
        while body is not None:
            bodies.append(body)
            body = body.parent
        if not bodies:
            return
        body = chance.choice(bodies)
        if body.modules and chance.random() < 0.5:
            name = self.generator.name("m")
            self.lines.append(f"(alias outer ${body.name} ${chance.choice(body.modules)} (core module ${name}))")
            self.modules.append(name)
        elif body.components:
            made = chance.choice(body.components)
            name = self.generator.name("c")
            self.lines.append(f"(alias outer ${body.name} ${made.name} (component ${name}))")
            self.components.append(Made(name, made.exports, made.takes))

    def core_instance(self) -> None:
        if self.modules:
            self.lines.append(f"(core instance (instantiate ${self.generator.chance.choice(self.modules)}))")

    def instance(self) -> None:
        if not self.components:
            return
        chance, name = self.generator.chance, self.generator.name("i")
        made = chance.choice(self.components)
        given = ""
        if made.takes == "module":
            if not self.modules:
                return
            given = f'(with "given" (core module ${chance.choice(self.modules)}))'
        elif made.takes == "component":
            plain = [each for each in self.components if each.takes == "nothing"]
            if not plain:
                return
            given = f'(with "given" (component ${chance.choice(plain).name}))'
        self.lines.append(f"(instance ${name} (instantiate ${made.name} {given}))")
        self.instances.append(Made(name, made.exports))

    def bundle(self) -> None:
        if not self.modules:
            return
        name = self.generator.name("i")
        module = self.generator.chance.choice(self.modules)
        self.lines.append(f'(instance ${name} (export "module" (core module ${module})))')
        self.instances.append(Made(name, frozenset({"module"})))

    def taken(self) -> None:
        wanted = [(made, what) for made in self.instances for what in sorted(made.exports)]
        if not wanted:
            return
        made, what = self.generator.chance.choice(wanted)
        if what == "module":
            name = self.generator.name("m")
            self.lines.append(f'(alias export ${made.name} "module" (core module ${name}))')
            self.modules.append(name)
        else:
            # NB: what a component that comes out of an instance exports is known to the type checker alone.
            name = self.generator.name("c")
            self.lines.append(f'(alias export ${made.name} "component" (component ${name}))')
            self.components.append(Made(name, frozenset()))
