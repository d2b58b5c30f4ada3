"""WasmWorkloads: inspection, verdict, reservation of slots, and their status."""
