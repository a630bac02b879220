from dataclasses import dataclass
import torch
from torch import Tensor
import torch.nn.functional as F
from ..images import to_tensor
@dataclass
class TokenPairs:
    source: Tensor
    target: Tensor
    instructions: list
    def __len__(self): return len(self.instructions)
def drawn(editor, samples):
    enc=lambda ims: torch.cat([editor.tokenize(ims[i:i+50]) for i in range(0,len(ims),50)])
    s,t=enc([x.source for x in samples]),enc([x.target for x in samples])
    m=torch.cat([to_tensor(x.mask.convert("RGB"))[:, :1] for x in samples])
    f=editor.vq.config.factor
    ch=F.max_pool2d(m,3*f,stride=f,padding=f)[:,0]>0
    return TokenPairs(s,torch.where(ch,t,s),[x.instruction for x in samples])
