"""Evolution of adapters: populations of blends and children, held against random search and the parents themselves."""
