TINY = LARGE = None
def measure(*_): return []
