"""What a person sees of the guest: the text screen; pictures and remote displays come later."""
