"""Search spaces, supernets and static nets."""
