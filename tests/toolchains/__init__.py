"""The hello world of each toolchain, built with what is on the machine, outside of the checkout."""
