"""Language models behind one router: who is asked, in which order, what it may cost, and what is made of the answer."""
