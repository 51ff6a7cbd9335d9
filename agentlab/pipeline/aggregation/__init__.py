"""How several answers become one. Pure: nothing here asks a model, it says what to ask and what the replies mean."""
